"""Package of the wheel that the conformance tests build."""


def main() -> None:
    """Entry point."""
    print("hello")
