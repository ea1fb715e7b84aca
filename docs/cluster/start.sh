#!/bin/bash
# Ray on several machines that are reached by ssh: docs/cluster/start.sh start | stop. See docs/clusters.md.

head=node1                        # where `cdlib run` is called
workers="node2 node3"
folder=$HOME/cdlib                # the repository with its .venv: at this path on all machines
port=6379
temp=/tmp/ray_$USER               # on each machine; short, for it begins the paths of sockets
options=""                        # of each machine, such as --num-gpus=4; what is not said, Ray finds out

set -euo pipefail

on() {
    ssh "$1" "cd '$folder' && $2"
}

case "${1:-}" in
start)
    on "$head" ".venv/bin/ray start --head --port=$port --include-dashboard=false --disable-usage-stats --temp-dir=$temp $options"
    for host in $workers; do
        on "$host" ".venv/bin/ray start --address=$head:$port --disable-usage-stats --temp-dir=$temp $options"
    done
    echo "on $head: cdlib run params/cifar20.yaml --set executor=ray --set ray_address=$head:$port --set device=cuda"
    ;;
stop)
    for host in $workers $head; do
        on "$host" ".venv/bin/ray stop; rm -rf $temp"
    done
    ;;
*)
    echo "usage: $0 start | stop" >&2
    exit 2
    ;;
esac
