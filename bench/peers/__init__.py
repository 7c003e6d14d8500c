"""What wsm is measured against: the smallest program of each kind that does the same work."""
