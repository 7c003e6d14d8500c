"""The commands for who writes to a customer: `wsm send`, for every kind, and `wsm media`, the store of files.

commands  the parser, and what the commands do
kinds     what each kind's arguments are, and what is made of them
"""
