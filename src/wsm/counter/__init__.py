"""The commands for who writes to and serves customers: `wsm send` and `wsm media`, the line and its agents.

commands  the parser, and what the commands do
line      the line, its queues and agents, a chat's history
kinds     what each kind's arguments are, and what is made of them
"""
