"""Pictures and clips as people see them: 8-bit levels, grids, animations and their files."""
