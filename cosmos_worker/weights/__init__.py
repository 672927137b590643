"""Weight files of every form: found, checked, loaded, merged, written."""
