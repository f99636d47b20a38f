# `nix run .#push-image -- REF`: one manifest for both architectures, pushed with skopeo alone.
{
  writeShellApplication,
  coreutils,
  gzip,
  jq,
  skopeo,
  images,
}:
writeShellApplication {
  name = "daisi-ws-push-image";
  meta.description = "Pushes the image of both architectures under one name";
  runtimeInputs = [
    coreutils
    gzip
    jq
    skopeo
  ];
  runtimeEnv = {
    IMAGE_AMD64 = images.image-archive-x86_64;
    IMAGE_ARM64 = images.image-archive-aarch64;
  };
  text = builtins.readFile ./push-image.sh;
}
