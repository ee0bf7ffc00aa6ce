// The operator's key. It is kept for this tab alone, and goes into headers.

const NAME = "whimbrel-console-key";

export const key = () => sessionStorage.getItem(NAME);

export function keep(text) {
  if (text) sessionStorage.setItem(NAME, text);
  else sessionStorage.removeItem(NAME);
}
