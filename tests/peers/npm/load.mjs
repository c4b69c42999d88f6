// Copied next to node_modules by install.sh, so that ../sign.mjs can load packages from there.
export const load = (name) => import(name);
