"""Row files, list files, and the calls that read and write them."""
