"""Points the official SDK, unchanged on disk, at an address of this machine."""

import argparse
import os

INSECURE = "DASHVECTOR_INSECURE_MODE"


def arguments(description):
    """The options that every script here has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--address", required=True, help="host:port")
    parser.add_argument("--ca", help="PEM file of the certificate authority; TLS is used if it is given")
    parser.add_argument("--timeout", type=float, default=10.0, help="seconds for each call")
    return parser


def prepare(ca):
    """Must run before the first client is built: the SDK reads these settings at that moment.

    Its gRPC side trusts only the bundle that certifi names, its HTTP side only SSL_CERT_FILE.
    """
    import certifi

    import dashvector.util.validator as validator

    validator.ENDPOINT_PATTERN = ".*"
    if ca is None:
        os.environ[INSECURE] = "true"
    else:
        os.environ.pop(INSECURE, None)
        os.environ["SSL_CERT_FILE"] = ca
        certifi.where = lambda: ca


def client(address, key, protocol, timeout):
    """A client whose construction has already asked for the version; it is false if that was denied."""
    from dashvector import Client, DashVectorProtocol

    kind = DashVectorProtocol.GRPC if protocol == "grpc" else DashVectorProtocol.HTTP
    return Client(api_key=key, endpoint=address, protocol=kind, timeout=timeout)
