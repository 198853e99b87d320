"""Where pictures come from, beside requests: folders and cameras."""
