"""What each verb of ``voxproof`` does: options in, exit code out; one file a group."""
