"""The figures of README: committed results, and the plots and tables that are made of them.

    vecdb bench run ... --> bench-results/run-....json --vecdb bench keep--> bench/results/NAME.json
                                                                                  |
                     README.md, between <!-- made by ... --> and <!-- end --> <---+--vecdb bench figures
                     bench/plots/NAME-light.svg, NAME-dark.svg              <-----+

kept.py     what is kept of a result, and its files      style.py    colours, axes, names at lines, SVG files
plots.py    the four plots                               tables.py   tables and sentences
page.py     which file is shown where
"""
