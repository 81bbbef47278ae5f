"""What the tests of all clients share: a running daemon's socket in GEMMAD_SOCKET, and clients that speak to it.

The tiny model of models/tiny is the daemon's default. It knows some capitals, adds, counts, tells one story, remembers
names and operates a home; at temperature 0 it does so without a mistake in what is asked here.
"""

import os

import httpx2
import openai
import pytest

SOCKET = os.environ.get("GEMMAD_SOCKET", "")
if not SOCKET:
    pytest.exit("GEMMAD_SOCKET must name the daemon's socket", returncode=2)


@pytest.fixture(scope="session")
def http():
    """The socket without a package in between."""
    with httpx2.Client(transport=httpx2.HTTPTransport(uds=SOCKET), base_url="http://localhost", timeout=60) as client:
        yield client


@pytest.fixture(scope="session")
def client():
    http_client = httpx2.Client(transport=httpx2.HTTPTransport(uds=SOCKET), timeout=60)
    # Retries would hide what is to be seen.
    with openai.OpenAI(base_url="http://localhost/v1", api_key="unused", max_retries=0, http_client=http_client) as client:
        yield client
