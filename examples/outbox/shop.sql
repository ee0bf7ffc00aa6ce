-- What the shop knows of orders, and what it has to sell.
CREATE TABLE orders (
    id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    item   text NOT NULL,
    pieces integer NOT NULL CHECK (pieces > 0)
);
CREATE TABLE stock (
    item   text PRIMARY KEY,
    pieces integer NOT NULL CHECK (pieces >= 0)
);
INSERT INTO stock VALUES ('Tea', 100), ('Coffee', 3);
