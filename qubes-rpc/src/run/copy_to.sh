# The qube's own program that takes files, into a fresh folder. In: nonce, target, token, seconds
arrange
unpacker=$(type -P qfile-unpacker) || { printf 'the qube has no qfile-unpacker\n' >&2; exit 1; }
printf '%s ready\n' "$nonce"
exec timeout -k 1 "$seconds" "$unpacker" "$UID" "$fresh" <&3 3<&-
