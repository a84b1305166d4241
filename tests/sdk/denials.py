"""What the official SDK shows its user when a call is denied.

Every case is tried in both protocols: a key that never was ("wrong"), no key ("empty"), and as far as they are given a good key
("good"), a deleted one ("deleted"), and one of an account that does not own the cluster ("other_account").

Prints one line of JSON: {case: {"grpc": {"code", "message", "request_id"}, "http": {...}}}. The code is what the SDK hands
out: a number, or over gRPC with an extra-code a text. An exception that the SDK lets through is told as {"raised"}.
"""

import json
import sys

import connect


def denial(address, key, protocol, timeout):
    """The SDK asks for the version while a client is built, and the client keeps the answer."""
    try:
        client = connect.client(address, key, protocol, timeout)
    except Exception as error:  # The SDK lets the errors of its libraries through.
        return {"raised": f"{type(error).__name__}: {error}"}
    return {"code": client.code, "message": client.message, "request_id": client.request_id}


def main():
    parser = connect.arguments(__doc__)
    parser.add_argument("--key", help="a good key")
    parser.add_argument("--deleted", help="a key that was deleted")
    parser.add_argument("--other", help="a good key of an account that does not own this cluster")
    parser.add_argument("--wrong", default="dvk_" + "0" * 46, help="a key that never was")
    options = parser.parse_args()
    connect.prepare(options.ca)

    cases = {
        "wrong": options.wrong,
        "empty": "",
        "good": options.key,
        "deleted": options.deleted,
        "other_account": options.other,
    }
    shown = {
        case: {protocol: denial(options.address, key, protocol, options.timeout) for protocol in ("grpc", "http")}
        for case, key in cases.items()
        if key is not None
    }
    json.dump(shown, sys.stdout)
    print()


if __name__ == "__main__":
    main()
