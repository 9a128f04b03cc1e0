"""Records in an order, as one list or as pages whose cursors outlive writes, vacuums and reopenings."""
