"""Everything on one machine: embedded servers, their supervisor, a WAHA of our own, exits, the story."""
