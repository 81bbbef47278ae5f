#!/bin/sh
# D-Bus with systemd's busctl.
set -e
service="org.gemmad.Gemmad1 /org/gemmad/Gemmad1 org.gemmad.Gemmad1.Manager"

busctl --system get-property $service State
# A model may have to be loaded first, so the service and busctl get more time than usual.
busctl --system --timeout=300 call $service Ask 'sa{sv}' "What is the capital of France?" 2 \
  temperature d 0 timeout u 300
