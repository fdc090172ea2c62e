"""What several tests share. Not a test."""
