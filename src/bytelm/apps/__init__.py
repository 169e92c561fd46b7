"""What people look at: patches in the terminal and in a page, and reports.

`glyphs` shows any byte, `render` a text with its patches, `charts` and `report` a run's results.
"""
