"""What people, their programs and the clock do with sessions: made, moved between states, and kept there.

    sessions    create, start, stop, restart, log out, delete, confirm a number
    pairing     a code to scan or to type, a passkey
    trial       one text, to see whether a number works
    servers     whether the WAHA servers keep what they are trusted with
    reconciler  compares every session with what it should be, and repairs
    looks       how a session is: asked of its gateway, through its exit, and heard
    catchup     what a session missed while it did not work, fetched
    watchdog    finds the session that says WORKING and is not
    moves       how a session is moved, by whom ever
    ownership   the leave to do so: one process at a time

A command line calls these functions today, and an API will. The reconciler runs beside the clock.
"""
