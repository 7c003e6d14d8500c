"""What people and their programs ask of the fleet: sessions, made and moved from one state to another.

    sessions   create, start, stop, restart, log out, delete, show a code
    servers    whether the WAHA servers keep what they are trusted with
    catchup    what a session missed while it did not work, fetched

A command line calls these functions today, and an API will.
"""
