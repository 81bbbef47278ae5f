#!/bin/sh
# D-Bus with GLib's gdbus.
set -e
call() { gdbus call --system --timeout 300 --dest org.gemmad.Gemmad1 --object-path /org/gemmad/Gemmad1 --method "$@"; }

call org.gemmad.Gemmad1.Manager.ListModels
call org.gemmad.Gemmad1.Manager.Ask "What is the capital of France?" "{'temperature': <0.0>, 'timeout': <uint32 300>}"
