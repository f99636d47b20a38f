# One flake builds, checks, images and runs everything. What each output is: nix/README.md.
{
  description = "WebSocket gateway: delivers JetStream events to exactly the browser sessions that should see them";

  inputs = {
    nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";
    # Builds the dependencies apart from the code, once for package, lints, documentation and tests. It has no inputs of its own.
    crane.url = "github:ipetkov/crane";
  };

  outputs =
    {
      self,
      nixpkgs,
      crane,
    }:
    let
      inherit (nixpkgs) lib;
      # The fleet runs in Linux containers; nothing here is tried on another system.
      systems = [
        "x86_64-linux"
        "aarch64-linux"
      ];
      # Builds never ask git: the revision is an argument, and the one thing that a commit without changes changes.
      revision = self.rev or self.dirtyRev or "unknown revision";

      # Everything that nix/ makes, for one system.
      parts =
        system:
        let
          pkgs = nixpkgs.legacyPackages.${system};
          gatewayOf = target: target.callPackage ./nix/package.nix { inherit crane revision; };
          gateway = gatewayOf pkgs;
          images = pkgs.callPackage ./nix/image.nix { inherit gatewayOf pkgs revision; };
          devCluster = pkgs.callPackage ./nix/dev-cluster.nix { inherit gateway; };
          e2e = pkgs.callPackage ./nix/e2e.nix { inherit images; };
          load = pkgs.callPackage ./nix/load.nix { inherit gateway; };
          pushImage = pkgs.callPackage ./nix/push-image.nix { inherit images; };
        in
        {
          packages = images // {
            inherit gateway;
            default = gateway;
            gateway-static = gatewayOf pkgs.pkgsStatic;
            dev-cluster = devCluster;
            inherit e2e load;
            push-image = pushImage;
          };
          apps = lib.mapAttrs (name: drv: app drv name) {
            default = devCluster;
            inherit gateway e2e load;
            push-image = pushImage;
          };
          checks = pkgs.callPackage ./nix/checks.nix { inherit gateway devCluster; };
          devShells.default = pkgs.callPackage ./nix/shell.nix { inherit gateway; };
          # `nix fmt`: the official style, over every .nix file of the tree.
          formatter = pkgs.nixfmt-tree;
        };
      app = drv: name: {
        type = "app";
        program = lib.getExe drv;
        meta.description = drv.meta.description or "daisi-ws-service: ${name}";
      };
      bySystem = lib.genAttrs systems parts;
    in
    lib.genAttrs [ "packages" "apps" "checks" "devShells" "formatter" ] (
      output: lib.mapAttrs (_: made: made.${output}) bySystem
    );
}
