"""Results side by side: what differs for certain, what was judged unlike, curves, and one page of it."""
