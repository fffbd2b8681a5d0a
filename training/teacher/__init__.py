"""The teacher and its pairs."""
