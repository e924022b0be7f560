# Leaves everything as it was before a copy that did not come to its end.
job() {
  arrange
  if there "$fresh-old"; then
    if there "$place"; then remove "$fresh-old"; else mv -nT -- "$fresh-old" "$place"; fi
  fi
  if there "$fresh"; then remove "$fresh"; fi
}
