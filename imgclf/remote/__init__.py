"""Places beyond this machine's disks: any URL that fsspec knows, such as s3://, gs://, hf:// and https://, read, listed and written."""
