"""Process: an asyncio RQ worker that rings, claims and runs bells, hundreds of them at once."""
