"""Places that hold files under names: folders, web servers, object stores, hubs. They know nothing of data sets."""
