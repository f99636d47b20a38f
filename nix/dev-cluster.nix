# `nix run`: a fleet of three pods as separate processes on a real NATS JetStream and Redis, watched by Prometheus and Grafana, each started when what
# it needs is healthy. What it does and prints is in dev-cluster.sh; here is who runs, with what, after whom.
{
  lib,
  writeShellApplication,
  writeText,
  bash,
  coreutils,
  gateway,
  grafana,
  nats-server,
  process-compose,
  prometheus,
  redis,
}:
let
  pods = [
    "1"
    "2"
    "3"
  ];

  # Ports and folders are known when it starts: ''${NAME} is filled in from the environment that dev-cluster.sh sets.
  healthy = names: lib.genAttrs names (_: { condition = "process_healthy"; });
  every = command: {
    exec.command = command;
    period_seconds = 1;
    timeout_seconds = 4;
    # A minute to come up; after that it has failed.
    failure_threshold = 60;
  };
  # Any 2xx at any URL: the gateway's probe serves for its neighbours too, so that no curl is needed.
  answers = url: every "daisi-ws-service healthcheck --url ${url}";

  service =
    name: attributes:
    {
      log_location = "\${DATA}/log/${name}.log";
      # Killed by hand, to see what the fleet does, it comes back.
      availability = {
        restart = "always";
        backoff_seconds = 1;
      };
      shutdown = {
        signal = 15;
        # More than app.shutdown_timeout_seconds: a drain shall not be cut off.
        timeout_seconds = 40;
      };
    }
    // attributes;

  pod =
    number:
    service "pod-${number}" {
      command = "exec daisi-ws-service serve";
      environment = [
        "DAISI_WS_SERVER_POD_ID=pod-${number}"
        "DAISI_WS_SERVER_HTTP_PORT=\${POD_${number}_HTTP}"
        "DAISI_WS_SERVER_PROBE_PORT=\${POD_${number}_PROBE}"
        "DAISI_WS_SERVER_GRPC_PORT=\${POD_${number}_GRPC}"
        "DAISI_WS_SERVER_GRPC_ADVERTISE_ADDRESS=127.0.0.1:\${POD_${number}_GRPC}"
      ];
      depends_on = healthy [
        "nats"
        "redis"
      ];
      readiness_probe = answers "http://127.0.0.1:\${POD_${number}_PROBE}/ready";
    };

  processes = {
    nats = service "nats" {
      command = "exec nats-server --name dev --addr 127.0.0.1 --port \${NATS_PORT} --http_port \${NATS_HTTP} --jetstream --store_dir \${DATA}/nats";
      readiness_probe = answers "http://127.0.0.1:\${NATS_HTTP}/healthz";
    };
    redis = service "redis" {
      # Sessions and routes are worth nothing after a restart: nothing is written to disk.
      command = "exec redis-server --bind 127.0.0.1 --port \${REDIS_PORT} --dir \${DATA}/redis --save '' --appendonly no";
      readiness_probe = every "redis-cli -p \${REDIS_PORT} ping";
    };
    # Not a pod of its own kind: `dev` joins the same fleet by the same keys, and serves the console page.
    console = service "console" {
      command = "exec daisi-ws-service dev --pods 1 --port \${CONSOLE_HTTP} --nats \${DAISI_WS_NATS_URL} --redis \${DAISI_WS_REDIS_ADDRESS}";
      depends_on = healthy [
        "nats"
        "redis"
      ];
      readiness_probe = answers "http://127.0.0.1:\${CONSOLE_HTTP}/ready";
    };
    prometheus = service "prometheus" {
      command = "exec prometheus --config.file=\${DATA}/prometheus.yml --storage.tsdb.path=\${DATA}/prometheus --web.listen-address=127.0.0.1:\${PROMETHEUS_PORT}";
      readiness_probe = answers "http://127.0.0.1:\${PROMETHEUS_PORT}/-/ready";
    };
    grafana = service "grafana" {
      command = "exec grafana server --homepath ${grafana}/share/grafana";
      depends_on = healthy [ "prometheus" ];
      readiness_probe = answers "http://127.0.0.1:\${GRAFANA_PORT}/api/health";
    };
  }
  // lib.listToAttrs (map (number: lib.nameValuePair "pod-${number}" (pod number)) pods);

  # JSON is YAML.
  config = writeText "daisi-ws-dev.yaml" (
    builtins.toJSON {
      version = "0.5";
      # A key that it does not know is an error.
      is_strict = true;
      # Pods before the servers that they drain into.
      ordered_shutdown = true;
      inherit processes;
    }
  );
in
writeShellApplication {
  name = "daisi-ws-dev-cluster";
  meta.description = "Runs three pods with NATS, Redis, Prometheus and Grafana on this machine";
  runtimeInputs = [
    bash
    coreutils
    gateway
    grafana
    nats-server
    process-compose
    prometheus
    redis
  ];
  runtimeEnv = {
    CLUSTER_CONFIG = config;
    PODS = lib.concatStringsSep " " pods;
    # The same rules and dashboards as everywhere.
    RULES = ../dashboards/prometheus;
    DASHBOARDS = ../dashboards/grafana;
  };
  derivationArgs.passthru = { inherit config; };
  text = builtins.readFile ./dev-cluster.sh;
}
