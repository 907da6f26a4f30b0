"""Flow matching: data and noise joined by a path, a network that learns its velocity, solvers that follow it.

Time runs from noise at t = 0 to data at t = 1, and velocities point towards the data. diffusers counts the
other way (sigma = 1 - t, output -v); only `unipc` crosses that border.
"""
