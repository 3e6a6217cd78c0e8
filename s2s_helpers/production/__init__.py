"""A trained model at work: exported, and behind a server."""
