"""Runs a service of the Python tutorial as it is published, on a free port.

PORTS says where those run that it calls: "5001=41234 5002=41235" for the one that the tutorial has on port 5002.

With LOWER_CASE set, the names of the headers are in lower case when the trace context is extracted: the tutorial's
services then do what they were meant to do.
"""

import os
import runpy
import sys

import flask
import requests
from honeyhive.tracer.processing import context

ports = dict(pair.split("=") for pair in os.environ["PORTS"].split())
run, post, extract = flask.Flask.run, requests.post, context.extract_context_from_carrier


def run_on_free_port(app, port, **options):
    run(app, port=0, **options)


def post_to_free_port(url, **options):
    for printed, free in ports.items():
        url = url.replace(f"localhost:{printed}/", f"127.0.0.1:{free}/")
    return post(url, **options)


def extract_in_lower_case(headers, tracer):
    return extract({name.lower(): value for name, value in headers.items()}, tracer)


flask.Flask.run = run_on_free_port
requests.post = post_to_free_port
if "LOWER_CASE" in os.environ:
    context.extract_context_from_carrier = extract_in_lower_case
runpy.run_path(sys.argv[1], run_name="__main__")
