"""Files of object stores and web servers, read by range through a bounded cache on local disk."""
