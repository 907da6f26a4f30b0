"""What training leaves behind: runs, opened files, conversion."""
