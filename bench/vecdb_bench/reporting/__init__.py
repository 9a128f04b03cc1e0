"""What a result says and how it is shown.

machine.py         where it was measured        recall_curves.py   the rate at a recall
results.py         JSON files, tables, plots
"""
