"""Additions of this build to TVM's Python package. No file of upstream is edited."""
