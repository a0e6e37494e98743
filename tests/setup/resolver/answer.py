#!/usr/bin/env python3
"""A DNS server for tests: answers from a table over UDP, and writes down each name that it is asked for.

  answer.py ADDRESS LOG NAME=ADDRESS...    a NAME of `*` is every other name

Types are A, AAAA and PTR; a name that is not in the table does not exist. Tells systemd when it is ready.
"""
import ipaddress
import os
import socket
import struct
import subprocess
import sys

address, log, table = sys.argv[1], open(sys.argv[2], "a", buffering=1), {}
for entry in sys.argv[3:]:
    name, _, value = entry.partition("=")
    value = ipaddress.ip_address(value)
    table.setdefault(name, []).append(value)
    table[value.reverse_pointer] = name
family = socket.AF_INET6 if ":" in address else socket.AF_INET
server = socket.socket(family, socket.SOCK_DGRAM)
server.bind((address, 53))
if "NOTIFY_SOCKET" in os.environ:
    subprocess.run(["systemd-notify", "--ready"], check=True)


def wire(name):
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"


while True:
    query, peer = server.recvfrom(4096)
    labels, at = [], 12
    while query[at]:
        labels.append(query[at + 1 : at + 1 + query[at]].decode().lower())
        at += 1 + query[at]
    name, kind = ".".join(labels), struct.unpack("!H", query[at + 1 : at + 3])[0]
    print(name, file=log)
    found, answers = table.get(name, table.get("*")), []
    if kind == 12 and isinstance(found, str):
        answers = [wire(found)]
    elif isinstance(found, list):
        wanted = {1: 4, 28: 6}.get(kind)
        answers = [value.packed for value in found if value.version == wanted]
    code = 0 if found is not None else 3
    head = query[:2] + struct.pack("!BBHHHH", 0x85, 0x80 | code, 1, len(answers), 0, 0)
    records = b"".join(
        b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, 5, len(data)) + data for data in answers
    )
    server.sendto(head + query[12 : at + 5] + records, peer)
