# OCI images, the same as compose/Containerfile makes: the binary, its bill of materials and the CA bundle, no shell, a numeric user. Each comes as a
# stream (a program that writes the image, so that it never enters the store) and as an archive (a file, which --rebuild can compare), from the same
# arguments.
{
  lib,
  pkgs,
  dockerTools,
  gatewayOf,
  revision,
}:
let
  native = pkgs.stdenv.hostPlatform.parsed.cpu.name;
  architectures = {
    x86_64 = {
      oci = "amd64";
      cross = pkgs.pkgsCross.gnu64;
    };
    aarch64 = {
      oci = "arm64";
      cross = pkgs.pkgsCross.aarch64-multiplatform;
    };
  };

  arguments =
    {
      gateway,
      architecture,
      tag,
    }:
    {
      name = "daisi-ws-service";
      inherit tag architecture;
      # "now" would make two builds of one commit differ.
      created = "1970-01-01T00:00:01Z";
      contents = [
        gateway
        gateway.passthru.sbom
        dockerTools.caCertificates
      ];
      config = {
        Entrypoint = [ "/bin/daisi-ws-service" ];
        Cmd = [ "serve" ];
        # A number, so that an orchestrator can see that it is not root's.
        User = "65532:65532";
        Env = [ "SSL_CERT_FILE=/etc/ssl/certs/ca-bundle.crt" ];
        ExposedPorts = {
          "8080/tcp" = { };
          "8081/tcp" = { };
          "50051/tcp" = { };
        };
        # There is no shell; the binary probes itself. Docker counts in nanoseconds.
        Healthcheck = {
          Test = [
            "CMD"
            "/bin/daisi-ws-service"
            "healthcheck"
          ];
          Interval = 5 * 1000000000;
          Timeout = 4 * 1000000000;
          StartPeriod = 10 * 1000000000;
          Retries = 3;
        };
        Labels = {
          "org.opencontainers.image.title" = "daisi-ws-service";
          "org.opencontainers.image.description" = gateway.meta.description;
          "org.opencontainers.image.version" = gateway.version;
          "org.opencontainers.image.revision" = revision;
          "org.opencontainers.image.source" = "https://github.com/daisi/daisi-ws-service";
          "org.opencontainers.image.licenses" = "MIT OR Apache-2.0";
        };
      };
    };

  both = name: image: {
    "sbom${name}" = image.gateway.passthru.sbom;
    "image${name}" = dockerTools.streamLayeredImage (arguments image);
    "image-archive${name}" = dockerTools.buildLayeredImage (arguments image);
  };

  ofArchitecture =
    cpu:
    { oci, cross }:
    both "-${cpu}" {
      gateway = gatewayOf (if cpu == native then pkgs else cross);
      architecture = oci;
      # What compose names, and nothing that a registry has.
      tag = "local";
    };

  made = lib.mergeAttrsList (lib.mapAttrsToList ofArchitecture architectures);
in
made
// {
  # This machine's.
  sbom = made."sbom-${native}";
  image = made."image-${native}";
  image-archive = made."image-archive-${native}";
}
# One file of a few MB instead of one beside glibc; glibc is the default, since its layer is shared and its allocator is the faster one.
// both "-static" {
  gateway = gatewayOf pkgs.pkgsStatic;
  architecture = architectures.${native}.oci;
  tag = "local-static";
}
