"""Everything on one machine: embedded servers, their supervisor, a WAHA that answers locally, the story."""
