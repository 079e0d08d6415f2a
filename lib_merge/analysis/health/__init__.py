"""The health of checkpoint files: looked at, mended, converted, put together anew."""
