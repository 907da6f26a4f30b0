"""LoRA files of other programs: read in every layout, merged by least squares."""
