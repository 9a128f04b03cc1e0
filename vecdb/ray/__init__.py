"""Jobs over whole clusters, and their servers, on Ray (`pip install 'vecdb-engine[ray]'`). Nothing else imports it."""
