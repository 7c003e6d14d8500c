"""Redis: the mailboxes, the five hand-over scripts, and every key in one place."""
