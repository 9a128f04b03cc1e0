"""What users hold: `Database`, `Collection`, `Hits`. They check arguments at the one gate and know backends as
protocols only.
"""
