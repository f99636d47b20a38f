# The packages: builders in their simplest form, and the machine's own programs under nixpkgs' names. `cpu` is what they would run on; nothing is
# cross-compiled, so another cpu's package holds this machine's program, and an image of it is right in all but that.
{
  host,
  lib,
  system,
  cpu,
  pkgsFor,
}:
let
  native = lib.head (lib.splitString "-" system);
  suffix = if cpu == native then "" else "-${cpu}";

  # Ends in a builtin: bash would replace itself by a last program, which Nix may then kill as it closes its output before it ends.
  run =
    name: environment: script:
    derivation (
      {
        name = name + suffix;
        inherit system;
        builder = "/bin/bash";
        args = [
          "-euc"
          "export PATH=\"\${PATH:+$PATH:}${host.path}\" HOME=$NIX_BUILD_TOP\n${script}\n:"
        ];
      }
      // environment
    );
  binPath = drvs: lib.concatStringsSep ":" (map (drv: "${drv}/bin") drvs);
  passed = attributes: drv: drv // attributes // (attributes.passthru or { });

  # A program of the machine. What it has not is there all the same, and says so when it is run.
  program =
    name: commands:
    passed { meta.mainProgram = lib.head commands; } (
      run name { } ''
        mkdir -p $out/bin
        ${lib.concatStringsSep "\n" (
          map (
            command:
            if host.tools ? ${command} then
              "ln -s ${host.tools.${command}} $out/bin/${command}"
            else
              "printf '#!/bin/sh\\necho \"${command}: not on this machine\" >&2\\nexit 127\\n' >$out/bin/${command}; chmod +x $out/bin/${command}"
          ) commands
        )}
      ''
    );

  # A program of this folder, in the place of one that the machine can't have.
  substitute =
    name: script:
    passed { meta.mainProgram = name; } (
      run name { } ''
        mkdir -p $out/bin $out/share/${name}
        cp ${script} $out/bin/${name}
        chmod +x $out/bin/${name}
      ''
    );

  writeText =
    name: text:
    run name {
      inherit text;
      passAsFile = [ "text" ];
    } "cp $textPath $out";

  runCommand =
    name:
    {
      nativeBuildInputs ? [ ],
    }:
    run name { PATH = binPath nativeBuildInputs; };

  writeShellApplication =
    {
      name,
      text,
      runtimeInputs ? [ ],
      runtimeEnv ? { },
      meta ? { },
      derivationArgs ? { },
    }:
    let
      exports = lib.mapAttrsToList (variable: value: "export ${variable}='${value}'\n") runtimeEnv;
    in
    passed ({ meta = meta // { mainProgram = name; }; } // derivationArgs) (
      run name
        {
          script = ''
            #!/bin/bash
            set -o errexit -o nounset -o pipefail
            ${lib.concatStringsSep "" exports}
            export PATH="${binPath runtimeInputs}:$PATH"

            ${text}'';
          passAsFile = [ "script" ];
        }
        ''
          mkdir -p $out/bin
          cp $scriptPath $out/bin/${name}
          chmod +x $out/bin/${name}
          bash -n $out/bin/${name}
          # As nixpkgs does, where it can be had.
          if command -v shellcheck >/dev/null; then shellcheck $out/bin/${name}; fi
        ''
    );

  image =
    {
      name,
      tag,
      architecture,
      created,
      contents,
      config,
    }:
    run "${name}.tar" {
      exportReferencesGraph = [
        "graph"
        (run "roots" {
          roots = builtins.toJSON {
            inherit config;
            contents = map toString contents;
          };
          passAsFile = [ "roots" ];
        } "cp $rootsPath $out")
      ];
      configuration = builtins.toJSON {
        inherit config created architecture;
        os = "linux";
      };
      passAsFile = [ "configuration" ];
      inherit contents;
    } "python3 ${./image.py} graph $configurationPath ${name}:${tag} $contents >$out";

  all =
    lib.mapAttrs program host.programs
    // {
      inherit
        lib
        system
        writeText
        runCommand
        writeShellApplication
        ;
      pkgs = all;
      callPackage = lib.callPackageWith all;
      # For the stand-in of crane: whatever the cpu, the package is this machine's, and built once.
      stub = {
        inherit host passed;
        run = if cpu == native then run else (pkgsFor native).stub.run;
      };
      stdenv = {
        hostPlatform = {
          parsed.cpu.name = cpu;
          isStatic = false;
          rust.rustcTarget = "${cpu}-unknown-linux-gnu";
        };
        cc = program "cc" [
          "cc"
          "ld"
        ];
      };
      rustc = program "rustc" [ "rustc" ] // {
        version = host.rustcVersion;
      };
      emptyDirectory = run "empty" { } "mkdir $out";
      process-compose = substitute "process-compose" ./process-compose.py;
      grafana = substitute "grafana" ./grafana.py;
      dockerTools = {
        buildLayeredImage = arguments: run "${arguments.name}.tar.gz" { } "gzip -n <${image arguments} >$out";
        streamLayeredImage =
          arguments:
          run "stream-${arguments.name}" { } "printf '#!/bin/sh\\nexec cat ${image arguments}\\n' >$out; chmod +x $out";
        caCertificates = run "ca-certificates" { } ''
          mkdir -p $out/etc/ssl/certs
          cp /etc/ssl/certs/ca-certificates.crt $out/etc/ssl/certs/ca-bundle.crt
          ln -s ca-bundle.crt $out/etc/ssl/certs/ca-certificates.crt
        '';
      };
      mkShell =
        {
          name,
          packages,
          inputsFrom,
          ...
        }@arguments:
        derivation (
          removeAttrs arguments [
            "packages"
            "inputsFrom"
          ]
          // {
            inherit name system;
            builder = "/bin/bash";
            args = [
              "-c"
              "export >$out; :"
            ];
            outputs = [ "out" ];
            PATH = "${binPath packages}:${host.path}";
            stdenv = run "stdenv" { } "mkdir $out; echo 'export PATH' >$out/setup";
          }
        );
      pkgsStatic = all;
      pkgsCross = {
        gnu64 = pkgsFor "x86_64";
        aarch64-multiplatform = pkgsFor "aarch64";
      };
    };
in
all
