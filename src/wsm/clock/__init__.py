"""Process: what must happen without anybody writing: SWEEP, due deliveries, the directory, the purge."""
